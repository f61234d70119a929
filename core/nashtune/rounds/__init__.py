"""The rounds of a game on a language model: phases between updates, and the rows that updates train on."""
