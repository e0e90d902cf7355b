-- The wall behind the parser. What a tenant wrote runs as leadline_expressions, and with SET ROLE alone that is no wall:
-- SQL that got past the parser could begin with set_config('role', 'none', true). Within a function that is SECURITY
-- DEFINER Postgres refuses that, so it runs within this one, which belongs to the role.

-- run_expression: the rows of a statement, carried out as leadline_expressions with $1 = parameters and in UTC. Where a
-- dump was loaded without its owners the function would lend another's rights, so it looks whose it is.
CREATE FUNCTION run_expression(statement text, parameters text[]) RETURNS SETOF record
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET TimeZone TO 'UTC' AS $$
BEGIN
    IF current_user <> 'leadline_expressions' THEN
        RAISE insufficient_privilege USING MESSAGE = 'run_expression does not belong to leadline_expressions',
            HINT = 'Let an administrator run: ALTER FUNCTION run_expression OWNER TO leadline_expressions';
    END IF;
    RETURN QUERY EXECUTE statement USING parameters;
END $$;
REVOKE ALL ON FUNCTION run_expression FROM PUBLIC;
DO $$
BEGIN
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO leadline_expressions', current_schema());
    ALTER FUNCTION run_expression OWNER TO leadline_expressions;
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM leadline_expressions', current_schema());
    EXECUTE format('GRANT EXECUTE ON FUNCTION run_expression TO %I', current_user);
END $$;

-- Ids of a list are written once and read once; to compress them took longer than to find them.
ALTER TABLE lead_list ALTER COLUMN leads SET STORAGE EXTERNAL;
