"""Files -> rows (`file:line`) -> records -> examples; every row that does not arrive is counted and named."""
