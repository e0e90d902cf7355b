-- Calls that the code of batch jobs asks for have, in the place of a lead, the number of the question, below zero: by that
-- a question that is put again after a restart is known to have led to one.
CREATE INDEX call_by_question ON call (job) WHERE lead < 0;
