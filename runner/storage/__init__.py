"""What a run keeps on the disk: one SQLite file, with trials, drafts and what the platform lacks.
Nothing is decided or sent here."""
