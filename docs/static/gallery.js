// Shows the cards of the front page that the chosen filters admit.
document.addEventListener("DOMContentLoaded", () => {
  const filters = [...document.querySelectorAll("[data-filter]")];
  if (!filters.length) return;
  const cards = [...document.querySelectorAll(".card")];
  const words = (text) => text.split(" ").filter(Boolean);
  const admits = {
    look: (card, asked) => words(asked.toLowerCase()).every((word) => card.dataset.look.includes(word)),
    task: (card, asked) => card.dataset.task.startsWith(asked + "."),
    notes: (card, asked) => words(card.dataset.notes).includes(asked),
    needs: (card, asked) => words(card.dataset.needs).every((name) => name === asked),
  };
  const update = () => {
    for (const card of cards) {
      card.hidden = !filters.every((one) => !one.value.trim() || admits[one.dataset.filter](card, one.value));
    }
    for (const family of document.querySelectorAll(".family")) {
      family.hidden = !family.querySelector(".card:not([hidden])");
    }
    document.querySelector(".count span").textContent = cards.filter((card) => !card.hidden).length;
  };
  document.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
  for (const one of filters) one.addEventListener("input", update);
  update();
});
