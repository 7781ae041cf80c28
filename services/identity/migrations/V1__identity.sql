-- Everything the identity service knows. What would let a reader of this database act as somebody else is stored as a hash
-- (passwords, sessions, codes, refresh tokens) or encrypted (signing keys).

CREATE TABLE users (
    id            uuid PRIMARY KEY,
    name          text NOT NULL,
    password_hash text NOT NULL,
    roles         text[] NOT NULL,
    updated_at    timestamptz NOT NULL
);
CREATE UNIQUE INDEX users_name ON users (lower(name));

CREATE TABLE clients (
    id            text PRIMARY KEY,
    secret_hash   text, -- none: a public client
    redirect_uris text[] NOT NULL,
    grants        text[] NOT NULL,
    scopes        text[] NOT NULL,
    roles         text[] NOT NULL,
    updated_at    timestamptz NOT NULL
);

-- A browser in which somebody has signed in.
CREATE TABLE sessions (
    hash             bytea PRIMARY KEY,
    user_id          uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    authenticated_at timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- What a user let a client do. Its code and all refresh tokens that come of it are one family.
CREATE TABLE grants (
    id               uuid PRIMARY KEY,
    client_id        text NOT NULL REFERENCES clients ON DELETE CASCADE,
    user_id          uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    scopes           text[] NOT NULL,
    authenticated_at timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    revoked_at       timestamptz
);
CREATE INDEX grants_user ON grants (user_id);
CREATE INDEX grants_client ON grants (client_id);
CREATE INDEX grants_expiry ON grants (expires_at);

CREATE TABLE codes (
    hash           bytea PRIMARY KEY,
    grant_id       uuid NOT NULL REFERENCES grants ON DELETE CASCADE,
    redirect_uri   text NOT NULL,
    code_challenge bytea NOT NULL,
    nonce          text,
    expires_at     timestamptz NOT NULL,
    used_at        timestamptz
);
CREATE INDEX codes_grant ON codes (grant_id);

CREATE TABLE refresh_tokens (
    hash       bytea PRIMARY KEY,
    grant_id   uuid NOT NULL REFERENCES grants ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX refresh_tokens_grant ON refresh_tokens (grant_id);

-- Wrong passwords of late. `account` is a hash, so that a password typed into the wrong field is not kept.
CREATE TABLE attempts (
    account       bytea NOT NULL,
    source        text NOT NULL,
    failures      integer NOT NULL,
    blocked_until timestamptz NOT NULL,
    last_at       timestamptz NOT NULL,
    PRIMARY KEY (account, source)
);
CREATE INDEX attempts_last ON attempts (last_at);

CREATE TABLE signing_keys (
    kid          text PRIMARY KEY,
    sealed       bytea NOT NULL, -- PKCS#8, AES-256-GCM under a key derived from the key-encryption key
    published_at timestamptz NOT NULL,
    signs_from   timestamptz NOT NULL
);
