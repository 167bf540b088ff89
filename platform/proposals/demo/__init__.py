"""The demonstration: the whole product under one parent process, with or without a person.

It uses the product; nothing of the product uses it.
"""
