using System;
using System.IO;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Threading;

/// <summary>
/// A service for Berth in C#, with nothing but what .NET and Mono both have: a web framework would hide how little is
/// needed. It answers one request on each connection.
/// </summary>
public static class Hello
{
    // Containers of one service share their environment, and have names of their own.
    static readonly string Instance =
        Environment.GetEnvironmentVariable("BERTH_INSTANCE") ?? Environment.GetEnvironmentVariable("HOSTNAME");

    public static void Main()
    {
        var credential = Fingerprint(Path.Combine(Environment.GetEnvironmentVariable("CREDENTIALS_DIRECTORY"), "greeting"));
        var address = IPAddress.Parse(Environment.GetEnvironmentVariable("HOST"));
        var listener = new TcpListener(address, int.Parse(Environment.GetEnvironmentVariable("PORT")));
        listener.Start();
        // SIGTERM ends the process: .NET does so by itself.
        while (true)
        {
            var client = listener.AcceptTcpClient();
            ThreadPool.QueueUserWorkItem(_ => Serve(client, credential));
        }
    }

    /// <summary>A credential is a file; its value never stands in an environment, an argument or a log.</summary>
    static string Fingerprint(string file)
    {
        using (var sha256 = SHA256.Create())
        {
            var digest = sha256.ComputeHash(File.ReadAllBytes(file));
            return BitConverter.ToString(digest, 0, 6).Replace("-", "").ToLowerInvariant();
        }
    }

    static void Serve(TcpClient client, string credential)
    {
        try
        {
            using (client)
            using (var stream = client.GetStream())
            {
                stream.ReadTimeout = stream.WriteTimeout = 5000;
                var answer = Encoding.UTF8.GetBytes(Answer(new StreamReader(stream, Encoding.ASCII), credential));
                stream.Write(answer, 0, answer.Length);
            }
        }
        catch (IOException)
        {
            // Whoever asked is gone.
        }
    }

    static string Answer(TextReader request, string credential)
    {
        var words = (request.ReadLine() ?? "").Split(' ');
        string caller = null;
        for (var line = request.ReadLine(); !string.IsNullOrEmpty(line); line = request.ReadLine())
        {
            var colon = line.IndexOf(':');
            if (colon > 0 && line.Substring(0, colon).Equals("x-forwarded-for", StringComparison.OrdinalIgnoreCase))
                caller = line.Substring(colon + 1).Trim();
        }
        switch (words.Length > 1 ? words[1].Split('?')[0] : "")
        {
            case "/readyz":
                return Response("200 OK", "{\"ready\":true}");
            case "/dotnet/hello":
                return Response("200 OK",
                    $"{{\"instance\":{Text(Instance)},\"credential\":{Text(credential)},\"caller\":{Text(caller)}}}");
            default:
                return Response("404 Not Found", "{\"error\":\"not found\"}");
        }
    }

    static string Response(string status, string json) =>
        $"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {Encoding.UTF8.GetByteCount(json)}\r\n"
        + $"connection: close\r\n\r\n{json}";

    /// <summary>JSON text. What comes in here holds no control characters: the gateway refuses such headers.</summary>
    static string Text(string value) =>
        value == null ? "null" : "\"" + value.Replace("\\", "\\\\").Replace("\"", "\\\"") + "\"";
}
