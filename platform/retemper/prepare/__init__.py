"""Before training: data set, reference energies, replay set, pseudolabels, and what each stage depends on."""
