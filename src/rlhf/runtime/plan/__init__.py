"""How much memory every stage will take, from the settings and the models' configs alone, before anything is loaded."""
