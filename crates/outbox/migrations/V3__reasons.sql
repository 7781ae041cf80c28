-- Why an operator did what cannot be undone, in the operator's words.
ALTER TABLE interventions ADD COLUMN reason text;
