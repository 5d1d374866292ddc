"""Where questions come from: two built-in tasks on real images, data set files, and weighted mixtures of them."""
