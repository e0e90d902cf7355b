-- How far each job was at which time: few points, however long it takes.

-- Written with the job's counts, in the same transaction, from `due` on; the next point is then `seconds` away. Points are
-- two lists of the same length.
CREATE TABLE throughput (
    job bigint PRIMARY KEY,
    due bigint NOT NULL,
    seconds integer NOT NULL CHECK (seconds > 0),
    at bigint[] NOT NULL,
    settled bigint[] NOT NULL CHECK (cardinality(settled) = cardinality(at))
);
