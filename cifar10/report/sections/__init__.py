"""A report's sections: each function yields the words, figures and tables of one, or nothing where none apply."""
