-- Where the owner lives, which tells its successor whether it is certainly dead.

ALTER TABLE leader ADD COLUMN place text NOT NULL DEFAULT '';
COMMENT ON COLUMN leader.place IS 'the state directory that it holds: of two daemons with the same, one is dead';
