// "Try again" in the status line of a refused request presses the button that had started it.
addEventListener('click', event => {
  const again = event.target.closest?.('[data-press]');
  if (again) document.getElementById(again.dataset.press)?.click();
});
