"""Published evaluation protocols, one file per paper, its figures beside."""
