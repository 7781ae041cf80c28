-- Positions in compressed form would be little smaller, and take a tenth of the time of a whole turn of the relay.
ALTER TABLE outbox_batches ALTER COLUMN positions SET STORAGE EXTERNAL;
