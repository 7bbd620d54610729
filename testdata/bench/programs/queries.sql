-- A query load: two tables, indexes, joins, aggregates, sorting, text functions, full scans; repeated until it is stopped.
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER, cents INTEGER, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO customer SELECT i, 'name ' || (i * 7919 % 10007), 'city ' || (i % 97) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
INSERT INTO purchase SELECT i, 1 + i * 7919 % 20000, i * 31 % 9973, hex(i * 1000003) FROM n;
CREATE INDEX purchase_customer ON purchase (customer);
WITH RECURSIVE rounds(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM rounds WHERE i < 100000)
SELECT i, (SELECT count(*) FROM (
    SELECT city, sum(cents) AS total, max(upper(note)), count(DISTINCT substr(note, 1, 3 + i % 3))
    FROM customer JOIN purchase ON purchase.customer = customer.id
    WHERE note LIKE '%' || (i % 10) || '%' AND cents % 17 <> i % 17
    GROUP BY city ORDER BY total DESC, city LIMIT 50))
FROM rounds;
