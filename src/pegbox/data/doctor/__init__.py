"""The data doctor: what is wrong with the rows, all of it at once, before anything is trained."""
