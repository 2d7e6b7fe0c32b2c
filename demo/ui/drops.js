// A file may be dropped anywhere: it goes to the place that the selected tab has for one. Without
// this the browser would leave the page for it, and what was typed would be lost.
const BOX = '.gb-picture, .gb-drop';

function take(event) {
  const files = event.dataTransfer?.files;
  if (!files?.length) return;
  event.preventDefault();
  event.stopPropagation();
  const places = [...document.querySelectorAll('.gb-drop')];
  const place = event.target.closest?.(BOX) ?? places.find(box => box.parentElement.offsetParent);
  const input = place?.querySelector('input[type=file]');
  if (!input) return;
  input.files = files;
  input.dispatchEvent(new Event('change', {bubbles: true}));
}

addEventListener('dragover', event => event.preventDefault());
// Before the editor of masks, which would take the file for a picture of its own.
addEventListener('drop', event => event.target.closest?.(BOX) || take(event), true);
// After the boxes, which take what falls into their middle.
addEventListener('drop', event => event.defaultPrevented || take(event));
