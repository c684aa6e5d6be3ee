// kafkajs, told what to do by one JSON object a line on standard input: {"id", "call", ...}.
//
// Each call is answered by {"id", "result"} or {"id", "error"}, in any order. Bytes are in base64. kafkajs reads as a
// member of a group only, so `read` makes a group of its own for each call. The process ends when its input does.
'use strict'

const readline = require('node:readline')
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')

const CODECS = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }
const DEADLINE_MS = 90_000
const kafka = new Kafka({ brokers: process.argv[2].split(','), logLevel: logLevel.NOTHING })
const admin = kafka.admin()

// kafkajs brings gzip; for the others it names plug-ins, and takes what has these two methods.
const provided = (compress, decompress) => () => ({
  compress: async (encoder) => Buffer.from(await compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(await decompress(buffer)),
})

const registerCodecs = async () => {
  const lz4 = require('lz4js')
  const zstd = require('@bokuweb/zstd-wasm')
  await zstd.init()
  CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
  CompressionCodecs[CompressionTypes.LZ4] = provided(lz4.compress, lz4.decompress)
  CompressionCodecs[CompressionTypes.ZSTD] = provided(zstd.compress, zstd.decompress)
}

const text = (bytes) => (bytes === null || bytes === undefined ? null : bytes.toString('base64'))
const bytes = (encoded) => (encoded === null ? null : Buffer.from(encoded, 'base64'))
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const headersOf = (pairs) => {
  const headers = {}
  for (const [name, value] of pairs) headers[name] = [...(headers[name] ?? []), bytes(value)]
  return headers
}

const produce = async ({ topic, records, acks, idempotent, codec, pause_ms }) => {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: idempotent ? 1 : null, allowAutoTopicCreation: false })
  await producer.connect()
  const messages = records.map((record) => ({
    partition: 0,
    key: bytes(record.key),
    value: bytes(record.value),
    headers: headersOf(record.headers),
    ...(record.timestamp_ms === null ? {} : { timestamp: String(record.timestamp_ms) }),
  }))
  const batches = pause_ms > 0 ? messages.map((message) => [message]) : [messages]
  const offsets = []
  try {
    for (const batch of batches) {
      const told = await producer.send({ topic, acks, compression: CompressionTypes[CODECS[codec]], messages: batch })
      if (acks !== 0) batch.forEach((_, at) => offsets.push(Number(told[0].baseOffset) + at))
      await pause(pause_ms)
    }
  } finally {
    await producer.disconnect()
  }
  return offsets
}

// So many messages from a consumer; `prepare` is called when it has begun to run, `finish` while it still does.
const consumed = async (consumer, topic, count, prepare, finish) => {
  const found = []
  const seen = new Set()
  await consumer.connect()
  try {
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${found.length} of ${count} records`)), DEADLINE_MS)
      const eachMessage = async (one) => {
        // A group that loses its coordinator reads again what it has not committed: what was seen is not new.
        const place = `${one.partition} ${one.message.offset}`
        if (found.length < count && !seen.has(place)) found.push(one)
        seen.add(place)
        if (found.length === count) {
          clearTimeout(timer)
          resolve()
        }
      }
      consumer.run({ autoCommit: false, eachMessage }).catch(reject)
      prepare()
    })
    await finish(found)
  } finally {
    await consumer.disconnect()
  }
  return found
}

const flattened = (headers) =>
  Object.entries(headers).flatMap(([name, values]) => [values].flat().map((value) => [name, text(value)]))

let groups = 0
const read = async ({ topic, offset, count, rack }) => {
  const consumer = kafka.consumer({ groupId: `reader-${process.pid}-${groups++}`, rackId: rack, maxWaitTimeInMs: 500 })
  const seek = () => consumer.seek({ topic, partition: 0, offset: String(offset) })
  const found = await consumed(consumer, topic, count, seek, async () => {})
  return found.map(({ message }) => ({
    offset: Number(message.offset),
    value: text(message.value),
    key: text(message.key),
    headers: flattened(message.headers),
    timestamp_ms: Number(message.timestamp),
  }))
}

const readAsGroup = async ({ group, topic, count }) => {
  const consumer = kafka.consumer({ groupId: group, maxWaitTimeInMs: 500 })
  const commit = (found) =>
    consumer.commitOffsets(
      found.map(({ partition, message }) => ({ topic, partition, offset: String(Number(message.offset) + 1) })),
    )
  const found = await consumed(consumer, topic, count, () => {}, commit)
  return found.map(({ message }) => Number(message.value.toString()))
}

const offsetAt = async ({ topic, when }) => {
  if (when >= 0) return Number((await admin.fetchTopicOffsetsByTimestamp(topic, when))[0].offset)
  const [{ low, high }] = await admin.fetchTopicOffsets(topic)
  return Number(when === -2 ? low : high)
}

// deleteTopicRecords looks for the leader in what is known already, before it asks about the topic at all.
const deleteRecords = async ({ topic, before }) => {
  await admin.fetchTopicOffsets(topic)
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(before) }] })
}

const config = async (type, name) => {
  const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type, name }] })
  return Object.fromEntries(resources[0].configEntries.map((entry) => [entry.configName, entry.configValue]))
}

const replicasOf = async (topic) => {
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
  return Object.fromEntries(topics[0].partitions.map((one) => [one.partitionId, [...one.replicas].sort()]))
}

const groupOffsets = async (group, topic) => {
  const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
  return Object.fromEntries(
    partitions.filter((one) => Number(one.offset) >= 0).map((one) => [one.partition, Number(one.offset)]),
  )
}

const CALLS = {
  create_topic: ({ topic, partitions }) =>
    admin.createTopics({ topics: [{ topic, numPartitions: partitions, replicationFactor: 3 }] }),
  produce,
  read,
  read_as_group: readAsGroup,
  offset_at: offsetAt,
  list_topics: () => admin.listTopics(),
  replicas_of: ({ topic }) => replicasOf(topic),
  delete_topic: ({ topic }) => admin.deleteTopics({ topics: [topic] }),
  node_ids: async () => (await admin.describeCluster()).brokers.map((broker) => broker.nodeId),
  topic_config: ({ topic }) => config(ConfigResourceTypes.TOPIC, topic),
  broker_config: ({ node }) => config(ConfigResourceTypes.BROKER, String(node)),
  set_topic_config: ({ topic, name, value }) =>
    admin.alterConfigs({
      validateOnly: false,
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name, value }] }],
    }),
  set_partition_count: ({ topic, count }) => admin.createPartitions({ topicPartitions: [{ topic, count }] }),
  delete_records: deleteRecords,
  list_groups: async () => (await admin.listGroups()).groups.map((group) => group.groupId),
  group_state: async ({ group }) => (await admin.describeGroups([group])).groups[0].state,
  group_offsets: ({ group, topic }) => groupOffsets(group, topic),
  delete_group: ({ group }) => admin.deleteGroups([group]),
  set_group_offset: ({ group, topic, offset }) =>
    admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: String(offset) }] }),
  reassign: ({ topic, replicas }) =>
    admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment: [{ partition: 0, replicas }] }] }),
}

const answer = async (request) => {
  try {
    const result = await CALLS[request.call](request)
    return { id: request.id, result: result ?? null }
  } catch (error) {
    return { id: request.id, error: `${error.name}: ${error.message}` }
  }
}

const main = async () => {
  await registerCodecs()
  await admin.connect()
  const lines = readline.createInterface({ input: process.stdin })
  lines.on('line', async (line) => process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`))
  lines.on('close', () => process.exit(0))
}

main()
