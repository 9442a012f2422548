-- movimento_flat once more, as one query over the source: what the pipeline must give, to the last character.
-- The words that begin with a colon are replaced: by the list of blanks (Unicode White_Space), by whether cards show.
WITH
associado_limpo AS (
  SELECT DISTINCT id, nullif(regexp_replace(btrim(nome, :blanks), '[' || :blanks || ']+', ' ', 'g'), '') AS nome,
    nullif(regexp_replace(btrim(sobrenome, :blanks), '[' || :blanks || ']+', ' ', 'g'), '') AS sobrenome, idade,
    lower(nullif(btrim(email, :blanks), '')) AS email
  FROM associado),
associado_aceito AS (
  SELECT * FROM associado_limpo a WHERE id IS NOT NULL AND (SELECT count(*) FROM associado_limpo b WHERE b.id = a.id) = 1),
conta_limpa AS (
  SELECT DISTINCT id, nullif(regexp_replace(btrim(tipo::text, :blanks), '[' || :blanks || ']+', ' ', 'g'), '') AS tipo,
    data_criacao, id_associado
  FROM conta),
conta_aceita AS (
  SELECT * FROM conta_limpa a WHERE id IS NOT NULL AND (SELECT count(*) FROM conta_limpa b WHERE b.id = a.id) = 1
    AND id_associado IN (SELECT id FROM associado_aceito)),
cartao_limpo AS (
  SELECT DISTINCT id, nullif(regexp_replace(num_cartao::text, '[' || :blanks || '-]+', '', 'g'), '') AS num_cartao,
    nullif(regexp_replace(btrim(nom_impresso, :blanks), '[' || :blanks || ']+', ' ', 'g'), '') AS nom_impresso,
    (to_jsonb(cartao) ->> 'data_criacao')::timestamp AS data_criacao, id_conta, id_associado
  FROM cartao),
cartao_aceito AS (
  SELECT * FROM cartao_limpo a WHERE id IS NOT NULL AND (SELECT count(*) FROM cartao_limpo b WHERE b.id = a.id) = 1
    AND id_conta IN (SELECT id FROM conta_aceita) AND id_associado IN (SELECT id FROM associado_aceito)),
movimento_limpo AS (
  SELECT DISTINCT id, vlr_transacao, nullif(btrim(des_transacao, :blanks), '') AS des_transacao, data_movimento, id_cartao
  FROM movimento),
movimento_aceito AS (
  SELECT * FROM movimento_limpo a WHERE id IS NOT NULL AND (SELECT count(*) FROM movimento_limpo b WHERE b.id = a.id) = 1
    AND vlr_transacao = round(vlr_transacao, 2) AND abs(vlr_transacao) < 100000000
    AND data_movimento >= '0001-01-01' AND data_movimento < '10000-01-01'
    AND id_cartao IN (SELECT id FROM cartao_aceito))
SELECT a.nome, a.sobrenome, a.idade::text, m.vlr_transacao::numeric(10,2)::text, m.des_transacao, m.data_movimento::text,
  CASE WHEN :plain OR k.num_cartao IS NULL THEN k.num_cartao
       WHEN length(k.num_cartao) <= 4 THEN repeat('*', length(k.num_cartao))
       ELSE repeat('*', length(k.num_cartao) - 4) || right(k.num_cartao, 4) END,
  k.nom_impresso, CASE WHEN k.data_criacao >= '0001-01-01' AND k.data_criacao < '10000-01-01' THEN k.data_criacao::text END,
  c.tipo, CASE WHEN c.data_criacao >= '0001-01-01' AND c.data_criacao < '10000-01-01' THEN c.data_criacao::text END
FROM movimento_aceito m
JOIN cartao_aceito k ON k.id = m.id_cartao
JOIN conta_aceita c ON c.id = k.id_conta
JOIN associado_aceito a ON a.id = k.id_associado
ORDER BY m.id
