"""Pages for people in a browser: what the operations of the sockets say, written as HTML, and forms that ask for them.

    site        one request of a person: which page, who asks, is the form its own
    visit       what a page's handler has in hand: whoever asks, what was said, and ways to ask, submit and answer
    forms       what a form says, a file among it
    typed       a form once more, with what was typed into it and what is wrong with that
    rendering   templates, and the words and numbers in them
    foreign     texts from outside, made harmless
    directory   every page, in one table

All that a page shows and does goes through `reach`, confined to the teamspace of whoever has signed in. Pages are whole
without JavaScript; what `assets/live.js` adds is that they move while one looks on.
"""
