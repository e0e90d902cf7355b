-- Whether the last owner ended in order. One that did not may have been taken down by one of its jobs.

ALTER TABLE leader ADD COLUMN orderly boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN leader.orderly IS 'false from a take-over to an orderly end';
