"""The world outside the daemon: providers, an AI endpoint and a mail server whose own logs say what really happened.

A test that asks Leadline whether Leadline kept its promises proves nothing. So the other side is played here by
programs that import nothing of it and write down what reached them, when, and what they answered. `behaviours` and
`mail` decide (pure: a request and the time in, a plan of the answer out), `servers` carries the plans out over real
HTTP; a simulation on virtual time asks the same behaviours directly.
"""
