"""How many labels each strategy saves: learning curves of the whole service, against random questions."""
