// The pictures that this browser made: [{image: data URL, text: parameters}], newest first.
// They stay in localStorage; the server sees none of them but the text of the one that is chosen.
const KEY = 'glassbox.history', MOST = 40, CHARACTERS = 2000000;
const list = element.querySelector('ol');
let memory = '[]';  // where the browser lets nothing be stored

function usable(entry) {
  return entry && typeof entry.text === 'string' && typeof entry.image === 'string'
    && /^data:image\/jpeg;base64,[A-Za-z0-9+/=]+$/.test(entry.image);
}

function read() {
  try {
    memory = localStorage.getItem(KEY) || '[]';
  } catch (blocked) { /* memory it is */ }
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
    button.addEventListener('click', () => {
      for (const other of list.querySelectorAll('[aria-pressed]')) other.removeAttribute('aria-pressed');
      button.setAttribute('aria-pressed', 'true');
      trigger('select', {value: entry.text});
    });
    item.append(button);
    return item;
  }));
  element.classList.toggle('gb-some', list.children.length > 0);
}

watch('value', () => {
  const made = JSON.parse(props.value || '[]').filter(usable);
  if (!made.length) return;
  const texts = new Set(made.map(entry => entry.text));
  write([...made.reverse(), ...read().filter(entry => !texts.has(entry.text))]);
  show();
});
window.addEventListener('storage', event => event.key === KEY && show());  // another tab drew
window.addEventListener('glassbox-forget', () => { write([]); show(); });
show();
