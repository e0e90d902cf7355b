-- Limits of provider accounts, too, may be set in the running daemon.
ALTER TABLE plan_override DROP CONSTRAINT plan_override_scope_check;
ALTER TABLE plan_override ADD CONSTRAINT plan_override_scope_check CHECK (scope IN ('plan', 'teamspace', 'provider'));
