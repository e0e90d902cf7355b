"""What the actors need from the outside, as Protocols named by role; each docstring states what is guaranteed."""
