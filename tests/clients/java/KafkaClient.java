import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own Java clients, told what to do by one JSON object a line on standard input: {"id", "call", ...}.
 *
 * <p>Each call runs in a thread of its own and is answered by {"id", "result"} or {"id", "error"}, in any order. Bytes
 * are in base64. The process ends when its input does.
 */
public final class KafkaClient {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long DEADLINE_MS = 90_000;
    private static final PrintStream OUT = System.out;

    private final String bootstrap;
    private final Admin admin;

    private KafkaClient(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(settings());
    }

    public static void main(String[] arguments) throws Exception {
        KafkaClient client = new KafkaClient(arguments[0]);
        ExecutorService threads = Executors.newCachedThreadPool();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            JsonNode request = JSON.readTree(line);
            threads.submit(() -> answer(client, request));
        }
        System.exit(0);
    }

    private static void answer(KafkaClient client, JsonNode request) {
        ObjectNode answer = JSON.createObjectNode();
        answer.set("id", request.get("id"));
        try {
            answer.set("result", JSON.valueToTree(client.call(request)));
        } catch (Throwable failed) {
            answer.put("error", String.valueOf(failed));
        }
        synchronized (OUT) {
            OUT.println(answer);
            OUT.flush();
        }
    }

    @SuppressWarnings({"deprecation", "removal"})
    private Object call(JsonNode request) throws Exception {
        String topic = request.path("topic").asText();
        String group = request.path("group").asText();
        TopicPartition partition = new TopicPartition(topic, 0);
        switch (request.get("call").asText()) {
            case "create_topic":
                NewTopic created = new NewTopic(topic, request.get("partitions").asInt(), (short) 3);
                return admin.createTopics(List.of(created)).all().get();
            case "produce":
                return produce(topic, request);
            case "read":
                return read(partition, request);
            case "read_as_group":
                return readAsGroup(group, topic, request.get("count").asInt());
            case "offset_at":
                return admin.listOffsets(Map.of(partition, moment(request.get("when").asLong())))
                        .partitionResult(partition).get().offset();
            case "list_topics":
                return admin.listTopics().names().get();
            case "replicas_of":
                return replicasOf(topic);
            case "delete_topic":
                return admin.deleteTopics(List.of(topic)).all().get();
            case "node_ids":
                return admin.describeCluster().nodes().get().stream().map(Node::id).toList();
            case "topic_config":
                return config(new ConfigResource(ConfigResource.Type.TOPIC, topic));
            case "broker_config":
                return config(new ConfigResource(ConfigResource.Type.BROKER, request.get("node").asText()));
            case "set_topic_config":
                ConfigEntry entry = new ConfigEntry(request.get("name").asText(), request.get("value").asText());
                return admin.incrementalAlterConfigs(Map.of(
                        new ConfigResource(ConfigResource.Type.TOPIC, topic),
                        List.of(new AlterConfigOp(entry, AlterConfigOp.OpType.SET)))).all().get();
            case "set_partition_count":
                NewPartitions increased = NewPartitions.increaseTo(request.get("count").asInt());
                return admin.createPartitions(Map.of(topic, increased)).all().get();
            case "delete_records":
                RecordsToDelete before = RecordsToDelete.beforeOffset(request.get("before").asLong());
                return admin.deleteRecords(Map.of(partition, before)).all().get();
            case "list_groups":
                return admin.listConsumerGroups().all().get().stream().map(found -> found.groupId()).toList();
            case "group_state":
                return admin.describeConsumerGroups(List.of(group)).all().get().get(group).state().toString();
            case "group_offsets":
                return groupOffsets(group, topic);
            case "delete_group":
                return admin.deleteConsumerGroups(List.of(group)).all().get();
            case "set_group_offset":
                OffsetAndMetadata offset = new OffsetAndMetadata(request.get("offset").asLong());
                return admin.alterConsumerGroupOffsets(group, Map.of(partition, offset)).all().get();
            case "delete_group_offset":
                return admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get();
            case "elect_preferred_leader":
                return elect(partition);
            case "reassign":
                return reassign(partition, request.get("replicas"));
            case "partition_sizes":
                return partitionSizes(partition);
            default:
                throw new IllegalArgumentException("no such call: " + request);
        }
    }

    private Properties settings() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("reconnect.backoff.ms", 20);
        return settings;
    }

    private List<Long> produce(String topic, JsonNode request) throws Exception {
        Properties settings = settings();
        settings.put("acks", request.get("acks").asText());
        settings.put("enable.idempotence", request.get("idempotent").asText());
        settings.put("compression.type", request.get("codec").asText());
        List<Long> offsets = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode record : request.get("records")) {
                List<Header> headers = new ArrayList<>();
                for (JsonNode header : record.get("headers")) {
                    headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
                }
                JsonNode time = record.get("timestamp_ms");
                Long timestamp = time.isNull() ? null : Long.valueOf(time.asLong());
                sent.add(producer.send(new ProducerRecord<>(
                        topic, 0, timestamp, bytes(record.get("key")), bytes(record.get("value")), headers)));
                Thread.sleep(request.get("pause_ms").asLong());
            }
            for (Future<RecordMetadata> one : sent) {
                RecordMetadata told = one.get();
                if (told.hasOffset()) {
                    offsets.add(told.offset());
                }
            }
        }
        return offsets;
    }

    private List<ObjectNode> read(TopicPartition partition, JsonNode request) {
        Properties settings = settings();
        settings.put("client.rack", request.get("rack").asText());
        List<ObjectNode> answers = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, request.get("offset").asLong());
            for (ConsumerRecord<byte[], byte[]> record : polled(consumer, request.get("count").asInt())) {
                ObjectNode answer = JSON.createObjectNode();
                answer.put("offset", record.offset()).put("timestamp_ms", record.timestamp());
                answer.put("key", text(record.key())).put("value", text(record.value()));
                ArrayNode headers = answer.putArray("headers");
                for (Header header : record.headers()) {
                    headers.addArray().add(header.key()).add(text(header.value()));
                }
                answers.add(answer);
            }
        }
        return answers;
    }

    private List<Integer> readAsGroup(String group, String topic, int count) {
        Properties settings = settings();
        settings.put("group.id", group);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("max.poll.records", count);
        List<Integer> values = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
            consumer.subscribe(List.of(topic));
            Map<TopicPartition, OffsetAndMetadata> following = new HashMap<>();
            for (ConsumerRecord<byte[], byte[]> record : polled(consumer, count)) {
                values.add(Integer.valueOf(new String(record.value(), StandardCharsets.UTF_8)));
                following.put(
                        new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1));
            }
            consumer.commitSync(following);
        }
        return values;
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Properties settings) {
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static List<ConsumerRecord<byte[], byte[]>> polled(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        long end = System.nanoTime() + DEADLINE_MS * 1_000_000;
        while (found.size() < count) {
            if (System.nanoTime() > end) {
                throw new IllegalStateException(found.size() + " of " + count + " records within the deadline");
            }
            consumer.poll(Duration.ofMillis(200)).forEach(found::add);
        }
        return found.subList(0, count);
    }

    private static OffsetSpec moment(long when) {
        return when == -2 ? OffsetSpec.earliest() : when == -1 ? OffsetSpec.latest() : OffsetSpec.forTimestamp(when);
    }

    private Map<Integer, List<Integer>> replicasOf(String topic) throws Exception {
        Map<Integer, List<Integer>> replicas = new TreeMap<>();
        admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().forEach(
                partition -> replicas.put(
                        partition.partition(), partition.replicas().stream().map(Node::id).sorted().toList()));
        return replicas;
    }

    private Map<String, String> config(ConfigResource resource) throws Exception {
        Config found = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        Map<String, String> values = new TreeMap<>();
        found.entries().forEach(entry -> values.put(entry.name(), entry.value()));
        return values;
    }

    private Map<Integer, Long> groupOffsets(String group, String topic) throws Exception {
        Map<Integer, Long> offsets = new TreeMap<>();
        admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().forEach((partition, offset) -> {
            if (partition.topic().equals(topic) && offset != null) {
                offsets.put(partition.partition(), offset.offset());
            }
        });
        return offsets;
    }

    private Object elect(TopicPartition partition) throws Exception {
        Optional<Throwable> failed =
                admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions().get().get(partition);
        if (failed.isPresent() && !(failed.get() instanceof ElectionNotNeededException)) {
            throw new IllegalStateException(failed.get());
        }
        return null;
    }

    private Object reassign(TopicPartition partition, JsonNode replicas) throws Exception {
        List<Integer> targets = new ArrayList<>();
        replicas.forEach(node -> targets.add(node.asInt()));
        Optional<NewPartitionReassignment> wanted = Optional.of(new NewPartitionReassignment(targets));
        return admin.alterPartitionReassignments(Map.of(partition, wanted)).all().get();
    }

    private Map<Integer, Long> partitionSizes(TopicPartition partition) throws Exception {
        Collection<Integer> nodes = admin.describeCluster().nodes().get().stream().map(Node::id).toList();
        Map<Integer, Long> sizes = new TreeMap<>();
        admin.describeLogDirs(nodes).allDescriptions().get().forEach((node, directories) ->
                directories.values().forEach(directory -> directory.replicaInfos().forEach((found, replica) -> {
                    if (found.equals(partition)) {
                        sizes.put(node, replica.size());
                    }
                })));
        return sizes;
    }

    private static byte[] bytes(JsonNode text) {
        return text.isNull() ? null : Base64.getDecoder().decode(text.asText());
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }
}
