// A slider over frames. props.value is JSON: {html, label, at, frames: [{key: value, ..., place}]}.
// html: what is always shown; in it, elements with data-is="key" show the current frame's value for
// that key: a text, or the source of an <img>. label: the slider's; at: index of the frame to begin
// with; place: the text beside the slider. The CSS variable --at is the slider's position, 0 to 1.
const stage = element.querySelector('div'), row = element.querySelector('label');
const slider = row.querySelector('input'), output = row.querySelector('output');
let frames = [];

function turn() {
  const at = Number(slider.value), frame = frames[at] || {};
  for (const part of stage.querySelectorAll('[data-is]')) {
    const said = frame[part.dataset.is];
    if (said === undefined) continue;
    if (part.tagName === 'IMG') part.src = said; else part.textContent = said;
  }
  stage.style.setProperty('--at', frames.length > 1 ? at / (frames.length - 1) : 0);
  output.textContent = frame.place || '';
  slider.setAttribute('aria-valuetext', frame.place || String(at));
}

function open() {
  const value = JSON.parse(props.value || '{}');
  frames = value.frames || [];
  stage.innerHTML = value.html || '';
  row.querySelector('span').textContent = value.label || '';
  row.style.visibility = frames.length > 1 ? 'visible' : 'hidden';
  row.style.display = value.html ? '' : 'none';
  slider.max = Math.max(frames.length - 1, 0);
  slider.value = value.at ?? 0;
  turn();
}

slider.addEventListener('input', turn);
watch('value', open);
open();
