-- What becomes of a saga that has no way forward any more after one of the databases was put back to an older state.
ALTER TYPE cancellation ADD VALUE 'unfulfilled';
ALTER TYPE saga_state ADD VALUE 'unfulfilled' AFTER 'rejected';
ALTER TYPE saga_state ADD VALUE 'unreturned';
ALTER TYPE saga_state ADD VALUE 'abandoned';
