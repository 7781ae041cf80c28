-- Documents and their lines, the sagas that settle them with item management, and what makes requests repeatable.

CREATE TYPE document_kind AS ENUM ('order', 'invoice', 'credit-note');
CREATE TYPE document_state AS ENUM ('PENDING', 'CONFIRMED', 'INVOICED', 'REJECTED', 'CANCELLED', 'ISSUED', 'RETURNED');
CREATE TYPE refusal_reason AS ENUM ('insufficient-stock', 'unknown-item', 'released');
CREATE TYPE cancellation AS ENUM ('deadline', 'customer');
CREATE TYPE saga_state AS ENUM (
    'reserving', 'taking', 'taken', 'releasing', 'released', 'rejected', 'returning', 'returned'
);

-- `INV-2026-000001`.
CREATE FUNCTION document_number(kind document_kind, year integer, count bigint) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN concat_ws(
        '-',
        CASE kind WHEN 'order' THEN 'ORD' WHEN 'invoice' THEN 'INV' ELSE 'CRN' END,
        year,
        lpad(count::text, greatest(6, length(count::text)), '0')
    );

CREATE TABLE documents (
    id           uuid PRIMARY KEY,
    kind         document_kind NOT NULL,
    number       text NOT NULL UNIQUE,
    customer     text NOT NULL,
    state        document_state NOT NULL,
    -- The document this one rests on: an invoice on its order, a credit note on its invoice.
    based_on     uuid REFERENCES documents (id),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    total        bigint NOT NULL CHECK (total >= 0),
    deadline     timestamptz,
    refusal      refusal_reason,
    shortages    jsonb NOT NULL DEFAULT '[]',
    cancellation cancellation,
    version      bigint NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT documents_state_fits_kind CHECK (
        CASE kind
            WHEN 'order' THEN state IN ('PENDING', 'CONFIRMED', 'INVOICED', 'REJECTED', 'CANCELLED')
            WHEN 'invoice' THEN state = 'ISSUED'
            WHEN 'credit-note' THEN state IN ('ISSUED', 'RETURNED')
        END
    ),
    CONSTRAINT documents_orders_rest_on_nothing CHECK ((kind = 'order') = (based_on IS NULL)),
    CONSTRAINT documents_orders_have_a_deadline CHECK ((kind = 'order') = (deadline IS NOT NULL)),
    CONSTRAINT documents_rejected_for_a_reason CHECK ((state = 'REJECTED') = (refusal IS NOT NULL)),
    CONSTRAINT documents_cancelled_for_a_reason CHECK ((state = 'CANCELLED') = (cancellation IS NOT NULL))
);

CREATE UNIQUE INDEX documents_one_invoice_per_order ON documents (based_on) WHERE kind = 'invoice';
CREATE INDEX documents_credit_notes_of_an_invoice ON documents (based_on) WHERE kind = 'credit-note';
-- Ids are UUIDs of version 7, so their order is the order in which documents were made.
CREATE INDEX documents_of_a_customer ON documents (customer, id DESC);

CREATE TABLE document_lines (
    document_id uuid NOT NULL REFERENCES documents (id),
    position    smallint NOT NULL,
    item_id     uuid NOT NULL,
    sku         text NOT NULL,
    name        text NOT NULL,
    quantity    bigint NOT NULL CHECK (quantity > 0),
    unit_price  bigint NOT NULL CHECK (unit_price >= 0),
    credited    bigint NOT NULL DEFAULT 0,

    PRIMARY KEY (document_id, position),
    CONSTRAINT document_lines_each_item_once UNIQUE (document_id, item_id),
    CONSTRAINT document_lines_credited_at_most_once CHECK (credited BETWEEN 0 AND quantity)
);

-- Invoices and credit notes are numbered without gaps, per kind and year (UTC), in the order of their dates: the law
-- asks for it. Whoever issues one locks the row until the end of the transaction.
CREATE TABLE document_numbers (
    kind      document_kind NOT NULL CHECK (kind <> 'order'),
    year      integer NOT NULL,
    last      bigint NOT NULL,
    issued_at timestamptz NOT NULL,

    PRIMARY KEY (kind, year)
);

-- Orders are no tax documents. Their numbers rise but may have gaps, so that placing one never waits for another.
CREATE SEQUENCE order_numbers AS bigint;

CREATE TABLE sagas (
    id         uuid PRIMARY KEY REFERENCES documents (id),
    state      saga_state NOT NULL,
    -- When the answer awaited in this state is overdue, by this server's clock; null where none is awaited.
    due_at     timestamptz,
    repeats    integer NOT NULL DEFAULT 0,
    initiator  text,
    trace      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX sagas_due ON sagas (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE idempotency_keys (
    principal   text NOT NULL,
    key         text NOT NULL,
    -- SHA-256 of the request.
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    document_id uuid NOT NULL REFERENCES documents (id) DEFERRABLE INITIALLY DEFERRED,
    created_at  timestamptz NOT NULL DEFAULT now(),

    PRIMARY KEY (principal, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
