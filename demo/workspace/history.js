// The pictures that this browser made: [{image: data URL, text: parameters text}], newest first.
// They are kept in localStorage; the server gets only the text of a picture that is clicked.
// MOST: how many pictures are kept; CHARACTERS: the longest JSON that is kept.
const KEY = 'glassbox.history', MOST = 40, CHARACTERS = 2000000;
const list = element.querySelector('ol');
let memory = '[]';  // the list as JSON, used where the browser blocks localStorage
let chosen = null;

function usable(entry) {
  return entry && typeof entry.text === 'string' && typeof entry.image === 'string'
    && /^data:image\/jpeg;base64,[A-Za-z0-9+/=]+$/.test(entry.image);
}

function read() {
  try {
    memory = localStorage.getItem(KEY) || '[]';
  } catch (blocked) { /* `memory` is used instead */ }
  try {
    const kept = JSON.parse(memory);
    return Array.isArray(kept) ? kept.filter(usable).slice(0, MOST) : [];
  } catch (damaged) {
    return [];
  }
}

function write(entries) {
  entries = entries.slice(0, MOST);
  while ((memory = JSON.stringify(entries)).length > CHARACTERS) entries.pop();
  for (;;) {
    try {
      localStorage.setItem(KEY, memory);
      return;
    } catch (full) {
      if (!entries.length) return;
      entries = entries.slice(0, entries.length >> 1);
      memory = JSON.stringify(entries);
    }
  }
}

function show() {
  list.replaceChildren(...read().map(entry => {
    const item = document.createElement('li');
    const button = document.createElement('button');
    const picture = document.createElement('img');
    button.type = 'button';
    button.title = picture.alt = entry.text.split('\n', 1)[0].slice(0, 200);
    picture.src = entry.image;
    button.append(picture);
    if (entry.text === chosen) button.setAttribute('aria-pressed', 'true');
    button.addEventListener('click', () => choose(entry.text === chosen ? null : entry.text));
    item.append(button);
    return item;
  }));
  element.classList.toggle('gb-some', list.children.length > 0);
}

// Makes the server show the settings of the picture with this text; null: hide them.
function choose(text) {
  const at = [...list.querySelectorAll('button')].indexOf(document.activeElement);
  chosen = text;
  show();
  if (at >= 0) list.querySelectorAll('button')[at].focus();
  trigger('select', {value: text || ''});
}

watch('value', () => {
  const made = JSON.parse(props.value || '[]').filter(usable);
  if (!made.length) return;
  const texts = new Set(made.map(entry => entry.text));
  write([...made.reverse(), ...read().filter(entry => !texts.has(entry.text))]);
  show();
});
window.addEventListener('storage', event => event.key === KEY && show());  // another window changed it
window.addEventListener('glassbox-forget', () => { write([]); chosen = null; show(); });
show();
