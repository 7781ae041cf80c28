-- A batch is there for some milliseconds: to compress its positions is time in every turn of the relay, and saves nothing.
ALTER TABLE outbox_batches ALTER COLUMN positions SET STORAGE EXTERNAL;
