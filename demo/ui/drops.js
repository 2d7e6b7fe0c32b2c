// A file dropped anywhere on the page goes to the file input of the selected tab. Without this the
// browser would open the file in place of the page, and what was typed would be lost.
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
// In the capture phase, before the mask editor, which would open the file as its own picture.
addEventListener('drop', event => event.target.closest?.(BOX) || take(event), true);
// In the bubbling phase, after the file inputs, which handle a drop on themselves.
addEventListener('drop', event => event.defaultPrevented || take(event));
