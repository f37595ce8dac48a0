"""docs/evidence.md, rendered from the tables of studies, so that no figure is typed."""
