// Java's HttpClient. Arguments: the authority's certificate, then URLs, whose fragment may name the
// version of HTTP. A line for each.

import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().sslContext(trusting(arguments[0])).build();
        for (int i = 1; i < arguments.length; i++) {
            System.out.println(arguments[i] + " " + fetch(client, URI.create(arguments[i])));
        }
    }

    private static String fetch(HttpClient client, URI url) {
        try {
            var request = HttpRequest.newBuilder(url);
            if (url.getFragment() != null) {
                request.version(HttpClient.Version.valueOf(url.getFragment()));
            }
            var response = client.send(request.build(), BodyHandlers.ofString());
            return response.statusCode() + " " + response.version() + " " + response.body();
        } catch (Exception error) {
            return error.toString();
        }
    }

    private static SSLContext trusting(String file) throws Exception {
        var roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        try (var certificate = new FileInputStream(file)) {
            var factory = CertificateFactory.getInstance("X.509");
            roots.setCertificateEntry("root", factory.generateCertificate(certificate));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);
        var context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
