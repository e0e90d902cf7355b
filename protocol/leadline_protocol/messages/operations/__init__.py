"""Operations: questions and instructions about what is there, each naming the reply that it is answered by.

Each subject is a module, and `base` is what all of them share; `requests` says which socket allows which.
"""
