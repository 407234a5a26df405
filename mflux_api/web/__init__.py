"""HTTP tools that know no job and no model."""
