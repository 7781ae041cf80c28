import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** A service for Berth in Java, with nothing but the JDK (17 or newer). */
public final class Hello {
    /** Containers of one service share their environment, and have names of their own. */
    private static final String INSTANCE = System.getenv().getOrDefault("BERTH_INSTANCE", System.getenv("HOSTNAME"));

    public static void main(String[] args) throws IOException, GeneralSecurityException {
        String credential = fingerprint(Path.of(System.getenv("CREDENTIALS_DIRECTORY"), "greeting"));
        int port = Integer.parseInt(System.getenv("PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress(System.getenv("HOST"), port), 0);
        server.createContext("/", exchange -> answer(exchange, 404, "{\"error\":\"not found\"}"));
        server.createContext("/readyz", exchange -> answer(exchange, 200, "{\"ready\":true}"));
        server.createContext("/java/hello", exchange -> answer(exchange, 200, hello(exchange, credential)));
        ExecutorService workers = Executors.newFixedThreadPool(8);
        server.setExecutor(workers);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> drain(workers)));
        server.start();
    }

    /** SIGTERM leads here. Requests that have begun are finished; then the process ends with code 143, as every JVM does. */
    private static void drain(ExecutorService workers) {
        workers.shutdown();
        try {
            workers.awaitTermination(900, TimeUnit.MILLISECONDS);
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    private static String hello(HttpExchange exchange, String credential) {
        String caller = exchange.getRequestHeaders().getFirst("x-forwarded-for");
        return String.format("{\"instance\":%s,\"credential\":%s,\"caller\":%s}",
                text(INSTANCE), text(credential), text(caller));
    }

    /** A credential is a file; its value never stands in an environment, an argument or a log. */
    private static String fingerprint(Path file) throws IOException, GeneralSecurityException {
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(file));
        return HexFormat.of().formatHex(digest, 0, 6);
    }

    /** JSON text. What comes in here holds no control characters: the gateway refuses such headers. */
    private static String text(String value) {
        return value == null ? "null" : '"' + value.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    private static void answer(HttpExchange exchange, int status, String json) throws IOException {
        byte[] body = json.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("content-type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        try (exchange) {
            exchange.getResponseBody().write(body);
        }
    }
}
