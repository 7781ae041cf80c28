<?php
// A service for Berth in PHP, with nothing but PHP itself. It is the front controller of PHP's own web server, which runs
// it once for each request. It never returns false, which would make the server look for a file of that path.
declare(strict_types=1);

function answer(int $status, array $value): void
{
    http_response_code($status);
    header('content-type: application/json');
    echo json_encode($value, JSON_THROW_ON_ERROR);
}

switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/readyz':
        answer(200, ['ready' => true]);
        break;
    case '/php/hello':
        // A credential is a file; its value never stands in an environment, an argument or a log.
        $greeting = file_get_contents(getenv('CREDENTIALS_DIRECTORY') . '/greeting');
        answer(200, [
            // Containers of one service share their environment, and have names of their own.
            'instance' => getenv('BERTH_INSTANCE') ?: getenv('HOSTNAME'),
            'credential' => substr(hash('sha256', $greeting), 0, 12),
            'caller' => $_SERVER['HTTP_X_FORWARDED_FOR'] ?? null,
        ]);
        break;
    default:
        answer(404, ['error' => 'not found']);
}
