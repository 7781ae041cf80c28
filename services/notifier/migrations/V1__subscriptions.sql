-- Who wants to be told of what, where; and what is being told.

CREATE TYPE subscription_state AS ENUM ('active', 'paused', 'disabled');
CREATE TYPE delivery_state AS ENUM ('pending', 'delivered', 'failed');

CREATE TABLE subscriptions (
    id            uuid               PRIMARY KEY,
    owner         text               NOT NULL,
    -- What the owner's token said when the subscription was last written: what they may see is decided by it.
    roles         text[]             NOT NULL,
    scopes        text[]             NOT NULL,
    -- Whether it may be about others' things than the owner's.
    everybodys    boolean            NOT NULL,
    url           text               NOT NULL CHECK (octet_length(url) <= 2048),
    -- Scheme, host and port of the URL: what is spared when it is slow.
    target        text               NOT NULL,
    event_types   text[]             NOT NULL CHECK (cardinality(event_types) BETWEEN 1 AND 32),
    -- Encrypted under a key that is not in this database.
    secret        bytea              NOT NULL,
    state         subscription_state NOT NULL DEFAULT 'active',
    -- Deliveries that failed since the last one that succeeded, and since when.
    failures      integer            NOT NULL DEFAULT 0,
    failing_since timestamptz,
    disabled_for  text,
    version       bigint             NOT NULL DEFAULT 1,
    created_at    timestamptz        NOT NULL DEFAULT now(),
    updated_at    timestamptz        NOT NULL DEFAULT now(),
    CONSTRAINT subscriptions_disabled_for_a_reason CHECK ((state = 'disabled') = (disabled_for IS NOT NULL))
);
CREATE INDEX subscriptions_of_owner ON subscriptions (owner, id);
CREATE INDEX subscriptions_about_everybody ON subscriptions (id) WHERE everybodys AND state = 'active';

-- What is told: once, however many are told.
CREATE TABLE events (
    id          uuid        PRIMARY KEY,
    type        text        NOT NULL,
    body        text        NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE deliveries (
    id              uuid           PRIMARY KEY,
    subscription_id uuid           NOT NULL REFERENCES subscriptions ON DELETE CASCADE,
    event_id        uuid           NOT NULL REFERENCES events,
    state           delivery_state NOT NULL DEFAULT 'pending',
    attempts        integer        NOT NULL DEFAULT 0,
    -- When it is due; while somebody tries it, when it is due again should they not come back.
    next_at         timestamptz    NOT NULL DEFAULT now(),
    last_status     integer,
    last_error      text,
    created_at      timestamptz    NOT NULL DEFAULT now(),
    updated_at      timestamptz    NOT NULL DEFAULT now(),
    UNIQUE (subscription_id, event_id)
);
CREATE INDEX deliveries_due ON deliveries (subscription_id, next_at) WHERE state = 'pending';
CREATE INDEX deliveries_of_event ON deliveries (event_id);
CREATE INDEX deliveries_by_age ON deliveries (updated_at);
