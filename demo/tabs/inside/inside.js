// Look inside: shows a recorded picture step by step. `data` is the description that view.py's
// `describe_picture` returns; frames and attention maps are fetched when they are needed, and kept.
const FRAMES = 400;  // how many frames are kept, and how many calls' attention maps
const root = element.querySelector('.gbi');
const frames = new Map(), maps = new Map();
const wanted = [];  // frames to fetch, the most urgent first
let data = null, call = 0, kind = 'clean', other = null, word = null, held = null, grid = -1;
let every = false, side = false, timer = null, busy = false, told = null;
const id = (key, at, what) => `${key}/${at}/${what}`;

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children);
  return made;
}

// ---- fetching frames and attention maps from the server -----------------------------------------

async function work() {
  if (busy) return;
  busy = true;
  while (wanted.length) {
    const [key, at, what] = wanted.shift();
    if (!data || frames.has(id(key, at, what))) continue;
    let got;
    try { got = await server.frame({key, call: at, kind: what}); } catch (lost) { got = {error: String(lost)}; }
    if (got.evicted && data && data.key === key) { wanted.length = 0; trigger('gone', {key}); break; }
    frames.set(id(key, at, what), got);
    while (frames.size > FRAMES) frames.delete(frames.keys().next().value);
    paint();
  }
  busy = false;
}

function want(key, at, what, urgent) {
  if (frames.has(id(key, at, what))) return frames.get(id(key, at, what));
  if (urgent) wanted.unshift([key, at, what]); else wanted.push([key, at, what]);
  work();
  return null;
}

async function wantMaps() {
  const at = every ? -1 : call, name = `${data.key}/${at}`;
  if (maps.has(name)) return maps.get(name);
  maps.set(name, null);
  let got = {grids: []};
  try { got = await server.maps({key: data.key, call: at}); } catch (lost) { /* shown without maps */ }
  maps.set(name, (got.grids || []).map(g => ({...g, bytes: Uint8Array.from(atob(g.data), c => c.charCodeAt(0))})));
  while (maps.size > FRAMES) maps.delete(maps.keys().next().value);
  paint();
  return maps.get(name);
}

function currentMaps() {
  const found = data && maps.get(`${data.key}/${every ? -1 : call}`);
  return found && found.length ? found[grid < 0 ? found.length - 1 : Math.min(grid, found.length - 1)] : null;
}

// ---- the elements of the page, made when a picture is opened ------------------------------------

let parts = {};

function build() {
  const L = data.labels, last = data.calls.length - 1;
  parts = {};
  parts.image = make('img', {class: 'gbi-a', alt: '', draggable: 'false'});
  parts.other = make('img', {class: 'gbi-b', alt: '', draggable: 'false', hidden: true});
  parts.veil = make('canvas', {class: 'gbi-veil', 'aria-hidden': 'true'});
  parts.divider = make('input', {type: 'range', class: 'gbi-divider', min: 0, max: 100, value: 50, 'aria-label': L.divider, hidden: true, oninput: paint});
  parts.wait = make('span', {class: 'gbi-wait'}, L.loading);
  parts.tagA = make('span', {class: 'gbi-tag gbi-tag-a', hidden: true});
  parts.tagB = make('span', {class: 'gbi-tag gbi-tag-b', hidden: true});
  parts.frame = make('div', {class: 'gbi-frame', style: `aspect-ratio: ${data.size[0]} / ${data.size[1]}`,
    onpointermove: look, onpointerleave: () => { held = null; paint(); }},
    parts.image, parts.other, parts.veil, parts.wait, parts.tagA, parts.tagB, parts.divider);
  parts.kinds = make('div', {class: 'gbi-kinds', role: 'radiogroup', 'aria-label': L.kind});
  for (const name of data.kinds)
    parts.kinds.append(make('button', {type: 'button', role: 'radio', 'data-kind': name, title: L['about_' + name],
      onclick: () => { kind = name; paint(); }}, L['kind_' + name]));
  parts.kinds.addEventListener('keydown', arrows);
  parts.about = make('p', {class: 'gbi-about'});
  parts.play = make('button', {type: 'button', class: 'gbi-play', onclick: play});
  parts.slider = make('input', {type: 'range', class: 'gbi-slider', min: 0, max: last, value: call, 'aria-label': L.step,
    oninput: () => { stop(); go(+parts.slider.value); }, onchange: tell});
  parts.where = make('div', {class: 'gbi-where', role: 'status'});
  parts.second = make('input', {type: 'range', class: 'gbi-slider', min: 0, max: last, value: 0, 'aria-label': L.compare,
    oninput: () => { other = +parts.second.value; paint(); }});
  parts.compare = make('input', {type: 'checkbox', class: 'gbi-compare',
    onchange: () => { other = parts.compare.checked ? +parts.second.value : null; paint(); }});
  parts.secondRow = make('div', {class: 'gbi-second'}, parts.second);
  parts.words = make('div', {class: 'gbi-words', role: 'group', 'aria-label': L.words});
  parts.span = make('select', {'aria-label': L.words, onchange: () => { every = parts.span.value === 'every'; paint(); }},
    make('option', {value: 'this'}, L.this), make('option', {value: 'every'}, L.every));
  parts.grid = make('select', {'aria-label': L.layers, onchange: () => { grid = +parts.grid.value; paint(); }},
    make('option', {value: -1}, L.all_layers),
    ...data.grids.map((g, i) => make('option', {value: i}, `${g[0]} × ${g[1]}`)));
  parts.span.value = every ? 'every' : 'this';
  if (grid >= data.grids.length) grid = -1;
  parts.grid.value = grid;
  parts.tree = make('div', {class: 'gbi-tree'});
  parts.sides = make('div', {class: 'gbi-sides', hidden: true});
  parts.side = make('button', {type: 'button', class: 'gbi-small', 'aria-pressed': 'false',
    onclick: () => { side = !side; paint(); }}, L.side);
  root.replaceChildren(
    make('div', {class: 'gbi-main'},
      parts.frame,
      parts.words,
      make('div', {class: 'gbi-run'}, parts.play, parts.slider),
      parts.where, parts.kinds, parts.about),
    make('div', {class: 'gbi-below'},
      make('label', {class: 'gbi-check'}, parts.compare, L.compare), parts.secondRow,
      make('h3', {class: 'gb-title'}, L.words),
      make('p', {class: 'gb-note gb-not'}, L.words_hint),
      make('div', {class: 'gbi-picks'}, parts.span, parts.grid),
      make('div', {class: 'gbi-treehead'}, make('h3', {class: 'gb-title'}, L.tree), parts.side),
      parts.tree, parts.sides));
  tree();
  words();
}

function words() {
  const list = data.words[data.calls[call][3]];
  parts.list = list;
  parts.words.replaceChildren(...list.map((text, i) => make('button', {
    type: 'button', class: 'gbi-word', 'data-word': i,
    onpointerenter: () => { held = null; word = i; paint(); }, onpointerleave: () => { if (parts.pinned !== i) word = parts.pinned ?? null; paint(); },
    onfocus: () => { word = i; paint(); }, onblur: () => { word = parts.pinned ?? null; paint(); },
    onclick: () => { parts.pinned = parts.pinned === i ? null : i; word = parts.pinned; paint(); },
  }, text)));
  if (!list.length) parts.words.append(make('span', {class: 'gb-not'}, data.labels.no_words));
}

function tree() {
  const under = parent => data.nodes.filter(n => n.parent === parent || (parent === null && !data.nodes.some(m => m.key === n.parent)));
  const branch = parent => {
    const found = under(parent);
    if (!found.length) return '';
    return make('ul', {}, ...found.map(n => make('li', {},
      make('button', {type: 'button', class: 'gbi-node', 'data-key': n.key, 'aria-current': n.key === data.key ? 'true' : null,
        onclick: () => trigger('select', {key: n.key})},
        make('img', {src: n.thumb, alt: n.name}),
        make('span', {}, ...(n.from ? [make('b', {}, n.from)] : []), n.name)),
      branch(n.key))));
  };
  parts.tree.replaceChildren(branch(null));
}

// ---- showing the current step -------------------------------------------------------------------

function go(to) {
  const before = data.calls[call][3];
  call = Math.max(0, Math.min(data.calls.length - 1, to));
  if (data.calls[call][3] !== before) words();
  paint();
}

function arrows(event) {
  const by = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (!by) return;
  event.preventDefault();
  const at = (data.kinds.indexOf(kind) + by + data.kinds.length) % data.kinds.length;
  kind = data.kinds[at];
  paint();
  parts.kinds.children[at].focus();
}

function play() {
  if (timer) { stop(); paint(); return; }
  if (call === data.calls.length - 1) go(0);
  timer = setInterval(() => {
    if (!root.offsetParent) return;
    if (call === data.calls.length - 1) { stop(); tell(); paint(); return; }
    if (frames.has(id(data.key, call + 1, kind))) go(call + 1); else want(data.key, call + 1, kind, true);
  }, 140);
  paint();
}

function stop() { clearInterval(timer); timer = null; }

// Tells the server the slider's step, from which a branch would start.
function tell() {
  const step = data.calls[call][0];
  if (step !== told) { told = step; trigger('moved', {step: step + 1}); }
}

function show(image, at, urgent) {
  const got = want(data.key, at, kind, urgent);
  if (got && got.url) {
    if (image.getAttribute('src') !== got.url) image.src = got.url;
    image.dataset.shown = id(data.key, at, kind);
  }
  return got;
}

function paint() {
  if (!data || !parts.frame) return;
  const L = data.labels, [step, t, sigma] = data.calls[call];
  const got = show(parts.image, call, true);
  parts.image.alt = `${L['kind_' + kind]}, ${L.step} ${step + 1}`;
  parts.wait.textContent = got && got.error ? got.error : L.loading;
  parts.wait.hidden = !!(got && got.url);
  if (+parts.slider.value !== call) parts.slider.value = call;
  parts.slider.setAttribute('aria-valuetext', `${L.step} ${step + 1}`);
  parts.where.replaceChildren(
    make('b', {}, `${L.step} ${step + 1} / ${data.steps}`),
    make('span', {'data-sigma': sigma}, `${L.sigma} ${sigma >= 0.1 ? sigma.toFixed(2) : sigma.toPrecision(2)}`),
    make('span', {'data-time': t}, `${L.time} ${+t.toFixed(1)}`));
  parts.play.textContent = timer ? '❚❚' : '▶';
  parts.play.setAttribute('aria-label', timer ? L.pause : L.play);
  for (const button of parts.kinds.children) {
    const on = button.dataset.kind === kind;
    button.setAttribute('aria-checked', on);
    button.tabIndex = on ? 0 : -1;
  }
  parts.about.textContent = L['about_' + kind];
  // two steps
  const two = other !== null;
  parts.secondRow.classList.toggle('gbi-off', !two);
  parts.second.disabled = !two;
  for (const part of [parts.other, parts.divider, parts.tagA, parts.tagB]) part.hidden = !two;
  if (two) {
    show(parts.other, other, false);
    parts.other.alt = `${L['kind_' + kind]}, ${L.step} ${data.calls[other][0] + 1}`;
    parts.other.style.clipPath = `inset(0 0 0 ${parts.divider.value}%)`;
    parts.tagA.textContent = step + 1;
    parts.tagB.textContent = data.calls[other][0] + 1;
  }
  // attention maps
  wantMaps();
  veil();
  // side by side
  parts.side.setAttribute('aria-pressed', side);
  parts.side.hidden = data.nodes.length < 2;
  parts.sides.hidden = !side || data.nodes.length < 2;
  if (!parts.sides.hidden) sides();
  if (!timer && got) ahead();
}

// Once the current frame is loaded, fetches the other frames of its kind, for smooth playing.
function ahead() {
  if (wanted.length) return;
  for (let by = 1; by < data.calls.length; by++)
    for (const at of [call + by, call - by])
      if (at >= 0 && at < data.calls.length && !frames.has(id(data.key, at, kind))) {
        want(data.key, at, kind, false);
        return;
      }
}

function sides() {
  const share = call / Math.max(1, data.calls.length - 1);
  parts.sides.replaceChildren(...data.nodes.map(n => {
    const got = n.key === data.key ? frames.get(id(n.key, call, kind)) : null;
    return make('figure', {'aria-current': n.key === data.key ? 'true' : null},
      make('img', {src: got && got.url ? got.url : n.thumb, alt: n.name}),
      make('figcaption', {}, n.from ? `${n.from}: ${n.name}` : n.name));
  }));
}

// ---- attention maps of the words ----------------------------------------------------------------

function veil() {
  const found = currentMaps(), canvas = parts.veil, chips = [...parts.words.querySelectorAll('.gbi-word')];
  for (const chip of chips) {
    chip.classList.toggle('gbi-on', +chip.dataset.word === word);
    chip.setAttribute('aria-pressed', parts.pinned === +chip.dataset.word);
    chip.style.removeProperty('--by');
  }
  const context = canvas.getContext('2d');
  canvas.width = canvas.height = 0;
  if (!found || other !== null) return;
  const [h, w] = found.size, cells = h * w;
  if (held) {  // the pointer is at `held`: highlight each word by its attention here, relative to its mean
    const at = Math.min(h - 1, Math.floor(held[1] * h)) * w + Math.min(w - 1, Math.floor(held[0] * w));
    const here = chips.map((_, i) => {
      let total = 0;
      for (let c = 0; c < cells; c++) total += found.bytes[i * cells + c];
      return total ? found.bytes[i * cells + at] * cells / total : 0;
    });
    const most = Math.max(...here, 1e-9);
    chips.forEach((chip, i) => chip.style.setProperty('--by', Math.max(0, (here[i] - 0.6) / Math.max(most - 0.6, 0.2)).toFixed(2)));
    return;
  }
  if (word === null || word >= chips.length) return;
  const map = found.bytes.subarray(word * cells, (word + 1) * cells);
  const low = Math.min(...map), high = Math.max(...map, low + 1);
  const small = document.createElement('canvas');
  small.width = w; small.height = h;
  const pixels = small.getContext('2d').createImageData(w, h);
  for (let c = 0; c < cells; c++) pixels.data[4 * c + 3] = Math.round(215 * (1 - (map[c] - low) / (high - low)));
  small.getContext('2d').putImageData(pixels, 0, 0);
  canvas.width = 256; canvas.height = Math.max(1, Math.round(256 * data.size[1] / data.size[0]));
  context.imageSmoothingQuality = 'high';
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  canvas.dataset.word = word;
}

function look(event) {
  if (event.target === parts.divider) return;
  const box = parts.frame.getBoundingClientRect();
  held = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (held.some(v => v < 0 || v >= 1)) held = null;
  veil();
}

// ---- opening a picture that the server sends ----------------------------------------------------

function open() {
  stop();
  let read = null;
  try { read = JSON.parse(props.value || 'null'); } catch (damaged) { /* no picture is open */ }
  if (!read) { data = null; parts = {}; root.replaceChildren(); return; }
  const same = data && data.key === read.key;
  data = read;
  wanted.length = 0;
  word = held = null;
  if (!same) { call = data.calls.length - 1; other = null; told = null; }
  if (!data.kinds.includes(kind)) kind = 'clean';
  build();
  paint();
}

watch('value', open);
open();
