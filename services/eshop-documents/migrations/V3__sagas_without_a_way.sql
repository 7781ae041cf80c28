-- They wait for an operator, who is shown them.
CREATE INDEX sagas_without_a_way ON sagas (id) WHERE state IN ('unfulfilled', 'unreturned');
