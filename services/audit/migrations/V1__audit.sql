-- What was told to the audit, and the chain it becomes.

-- Records that have no place in the chain yet: many writers put them here, one moves them on. A row stays for milliseconds.
CREATE TABLE intake (
    position    bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id          uuid        NOT NULL UNIQUE,
    type        text        NOT NULL,
    source      text        NOT NULL,
    subject     text        NOT NULL,
    actor       text,
    occurred_at timestamptz NOT NULL,
    content     text        NOT NULL
);

-- The chain. `hash` is over everything before it in the row; `docs/audit.md` has the exact bytes.
CREATE TABLE entries (
    seq         bigint      PRIMARY KEY CHECK (seq >= 1),
    recorded_at timestamptz NOT NULL,
    id          uuid        NOT NULL UNIQUE,
    type        text        NOT NULL,
    source      text        NOT NULL,
    subject     text        NOT NULL,
    actor       text,
    occurred_at timestamptz NOT NULL,
    content     text        NOT NULL,
    previous    bytea       NOT NULL CHECK (length(previous) = 32),
    hash        bytea       NOT NULL CHECK (length(hash) = 32)
);
CREATE INDEX entries_of_type ON entries (type text_pattern_ops, seq);
CREATE INDEX entries_of_subject ON entries (subject, seq);
CREATE INDEX entries_of_actor ON entries (actor, seq) WHERE actor IS NOT NULL;
CREATE INDEX entries_by_time ON entries (recorded_at);

-- Whoever appends locks this row, so that there is one at a time.
CREATE TABLE chain_head (
    only_one    boolean     PRIMARY KEY DEFAULT true CHECK (only_one),
    seq         bigint      NOT NULL,
    hash        bytea       NOT NULL,
    recorded_at timestamptz NOT NULL
);
INSERT INTO chain_head (seq, hash, recorded_at) VALUES (0, decode(repeat('00', 32), 'hex'), '2000-01-01T00:00:00Z');

-- Heads that were signed and told to the event bus.
CREATE TABLE checkpoints (
    seq       bigint      PRIMARY KEY,
    signed_at timestamptz NOT NULL DEFAULT now()
);

-- Nothing is ever changed or removed. The owner of the table could take these guards away again; that it was done is what the
-- chain and its checkpoints show.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries of the audit are never changed or removed' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER entries_are_final BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_are_kept BEFORE TRUNCATE ON entries FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON entries FROM PUBLIC, CURRENT_USER;
