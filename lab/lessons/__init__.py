"""The lessons: a module each, which holds its questions as data and a function that puts them on a page.

:mod:`lab.lessons.collapse` is the one to copy when you write your own.
"""
