-- Items, the ledger of their stock, and the reservations orders hold on it.
-- The rules that money and stock depend on stand here as constraints, so that no statement can break them.

CREATE TYPE entry_kind AS ENUM ('opening', 'adjustment', 'taken', 'returned');
CREATE TYPE reservation_state AS ENUM ('held', 'taken', 'released', 'refused');

CREATE TABLE items (
    id             uuid        PRIMARY KEY,
    sku            text        NOT NULL CHECK (char_length(sku) BETWEEN 1 AND 64),
    name           text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    description    text        CHECK (char_length(description) <= 4000),
    price_amount   bigint      NOT NULL CHECK (price_amount BETWEEN 0 AND 9007199254740991),
    price_currency text        NOT NULL CHECK (price_currency ~ '^[A-Z]{3}$'),
    stock_on_hand  bigint      NOT NULL,
    stock_reserved bigint      NOT NULL DEFAULT 0,
    version        bigint      NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    deleted_at     timestamptz,
    -- Words of sku, name and description. ASCII punctuation parts words, so that `red-01` finds `MUG-RED-01`.
    search         tsvector    NOT NULL GENERATED ALWAYS AS (
        to_tsvector('simple', translate(
            sku || ' ' || name || ' ' || coalesce(description, ''),
            '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~',
            '                                '))
    ) STORED,
    CONSTRAINT items_stock_reserved_not_negative CHECK (stock_reserved >= 0),
    CONSTRAINT items_stock_reserved_on_hand      CHECK (stock_reserved <= stock_on_hand),
    CONSTRAINT items_deleted_reserves_nothing    CHECK (deleted_at IS NULL OR stock_reserved = 0)
);
-- A deleted item keeps its row (stock may still come back to it) and gives its sku free.
CREATE UNIQUE INDEX items_sku ON items (sku) WHERE deleted_at IS NULL;
CREATE INDEX items_search ON items USING gin (search);

-- Every change of an item's stock on hand. The changes of an item add up to its `stock_on_hand`.
CREATE TABLE stock_entries (
    id              uuid        PRIMARY KEY,
    item_id         uuid        NOT NULL REFERENCES items,
    kind            entry_kind  NOT NULL,
    change          bigint      NOT NULL CHECK (change <> 0),
    stock_on_hand   bigint      NOT NULL,
    stock_reserved  bigint      NOT NULL CHECK (stock_reserved BETWEEN 0 AND stock_on_hand),
    reason          text        CHECK (char_length(reason) BETWEEN 1 AND 500),
    reference       uuid,       -- the order that took the stock, the credit note that returned it
    actor           text        NOT NULL,
    idempotency_key text,
    created_at      timestamptz NOT NULL,
    CONSTRAINT stock_entries_adjustment_has_reason CHECK ((kind = 'adjustment') = (reason IS NOT NULL)),
    CONSTRAINT stock_entries_order_has_reference   CHECK ((kind IN ('taken', 'returned')) = (reference IS NOT NULL))
);
CREATE INDEX stock_entries_of_item ON stock_entries (item_id, id);
-- One effect for each key a caller chose; a replay finds the entry and answers from it.
CREATE UNIQUE INDEX stock_entries_idempotency ON stock_entries (item_id, actor, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- What became of each order's wish for stock. A row without lines is a refusal, or the tombstone of an order that was
-- released before its wish arrived.
CREATE TABLE reservations (
    order_id   uuid              PRIMARY KEY,
    state      reservation_state NOT NULL,
    deadline   timestamptz,
    refusal    jsonb,            -- the answer of a refused order, kept to be repeated
    created_at timestamptz       NOT NULL,
    updated_at timestamptz       NOT NULL,
    CONSTRAINT reservations_refused_has_answer CHECK ((state = 'refused') = (refusal IS NOT NULL))
);

CREATE TABLE reservation_lines (
    order_id uuid   NOT NULL REFERENCES reservations,
    item_id  uuid   NOT NULL REFERENCES items,
    quantity bigint NOT NULL CHECK (quantity > 0),
    returned bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, item_id),
    CONSTRAINT reservation_lines_returned_within_taken CHECK (returned BETWEEN 0 AND quantity)
);
CREATE INDEX reservation_lines_of_item ON reservation_lines (item_id, order_id);

-- Credit notes whose goods are back on the shelf.
CREATE TABLE stock_returns (
    credit_note_id uuid        PRIMARY KEY,
    order_id       uuid        NOT NULL REFERENCES reservations,
    created_at     timestamptz NOT NULL
);
