// Whoever has followed a link with a script running need not press the button too.
document.getElementById("door").requestSubmit();
