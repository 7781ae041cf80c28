-- What this database owes to others: one row an event, written in the transaction of the change it tells about.
-- Partitioned by day, so that published events are dropped with their day; the relay makes the days ahead.
CREATE SEQUENCE outbox_position;

CREATE TABLE outbox (
    -- Events of one aggregate ascend by it, because it is drawn while the aggregate's row is locked. Across aggregates a
    -- smaller one may be committed later: never read on from the last one seen.
    position        bigint      NOT NULL DEFAULT nextval('outbox_position'),
    created_at      timestamptz NOT NULL DEFAULT now(),
    id              uuid        NOT NULL,
    subject         text        NOT NULL,
    aggregate_type  text        NOT NULL,
    aggregate_id    uuid        NOT NULL,
    version         bigint      NOT NULL,
    data_version    integer     NOT NULL,
    saga            uuid,
    initiator       text,
    traceparent     text,
    data            json        NOT NULL,
    published_at    timestamptz,
    -- Where it stands in the stream whose incarnation outbox_stream names. Null with published_at set: no stream takes
    -- its subject, see dead_letters.
    stream_sequence bigint,
    PRIMARY KEY (position, created_at)
) PARTITION BY RANGE (created_at);

CREATE INDEX outbox_unpublished ON outbox (position) WHERE published_at IS NULL;

CREATE TABLE outbox_default PARTITION OF outbox DEFAULT;

-- The version of each aggregate's last event.
CREATE TABLE outbox_aggregates (
    aggregate_type text   NOT NULL,
    aggregate_id   uuid   NOT NULL,
    version        bigint NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
) WITH (fillfactor = 80);

-- Batches on their way to the stream: which events, in which order, and the sequence they must follow. Written before
-- anything is sent, so that after a lost answer the stream can be asked what became of it.
CREATE TABLE outbox_batches (
    id            uuid        PRIMARY KEY,
    positions     bigint[]    NOT NULL,
    last_sequence bigint      NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- What is known of the stream: which incarnation of it, and its last sequence. Another incarnation, or a smaller
-- sequence, means that the event server lost messages which it had acknowledged.
CREATE TABLE outbox_stream (
    name          text   PRIMARY KEY,
    incarnation   text   NOT NULL,
    last_sequence bigint NOT NULL
);

-- Messages whose effect is in this database, each once a consumer. Partitioned by the time of the event, which is part of
-- the message and so the same at each delivery.
CREATE TABLE inbox (
    consumer        text        NOT NULL,
    message_id      uuid        NOT NULL,
    occurred_at     timestamptz NOT NULL,
    stream_sequence bigint      NOT NULL,
    handled_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE inbox_default PARTITION OF inbox DEFAULT;

-- The version up to which each aggregate's events have been handled. `adopted`: what came before was not in the stream
-- any more when the consumer began.
CREATE TABLE inbox_aggregates (
    consumer       text   NOT NULL,
    aggregate_type text   NOT NULL,
    aggregate_id   uuid   NOT NULL,
    version        bigint NOT NULL,
    adopted        bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, aggregate_type, aggregate_id)
) WITH (fillfactor = 80);

-- Events that came before one they must follow.
CREATE TABLE inbox_parked (
    consumer        text        NOT NULL,
    aggregate_type  text        NOT NULL,
    aggregate_id    uuid        NOT NULL,
    version         bigint      NOT NULL,
    stream_sequence bigint      NOT NULL,
    event           json        NOT NULL,
    attempts        integer     NOT NULL DEFAULT 0,
    parked_at       timestamptz NOT NULL DEFAULT now(),
    retry_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, aggregate_type, aggregate_id, version)
);

-- Messages that could not be handled and will not be tried again unless a person says so.
CREATE TABLE dead_letters (
    id                  bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    consumer            text        NOT NULL,
    subject             text        NOT NULL,
    stream_sequence     bigint      NOT NULL,
    message_id          uuid,
    payload             bytea       NOT NULL,
    reason              text        NOT NULL,
    died_at             timestamptz NOT NULL DEFAULT now(),
    replay_requested_at timestamptz,
    resolved_at         timestamptz,
    resolution          text        CHECK (resolution IN ('replayed', 'discarded')),
    CHECK ((resolved_at IS NULL) = (resolution IS NULL))
);

-- A message is delivered again when its acknowledgement was lost.
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (consumer, stream_sequence, sha256(payload));

CREATE INDEX dead_letters_open ON dead_letters (consumer, id) WHERE resolved_at IS NULL;
