-- What it takes to notice, and to mend, that one side was put back to an older state; and what operators did.

-- The id of the message at last_sequence: whether the stream is the one that is known, or one with another history.
ALTER TABLE outbox_stream ADD COLUMN last_message uuid;

-- How often an operator had the event published again: so often it has another message id for the event server, which
-- would take it for a duplicate otherwise.
ALTER TABLE outbox ADD COLUMN edition integer NOT NULL DEFAULT 0;

-- Up to where everything in a stream that concerns a consumer is in this database for certain. Behind what the event server
-- believes after this database was put back to an older state.
CREATE TABLE inbox_progress (
    consumer text   PRIMARY KEY,
    floor    bigint NOT NULL
);

-- How often an event was tried, written before it is tried again: an event that ends the process has a last try, too.
CREATE TABLE inbox_attempts (
    consumer   text        NOT NULL,
    message_id uuid        NOT NULL,
    attempts   integer     NOT NULL,
    last_error text,
    tried_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id)
);

ALTER TABLE inbox_parked DROP COLUMN attempts;

-- What operators changed, and why.
CREATE TABLE interventions (
    id       bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at       timestamptz NOT NULL DEFAULT now(),
    operator text        NOT NULL,
    action   text        NOT NULL,
    subject  text        NOT NULL
);
