import "reflect-metadata";
import { NestFactory } from "@nestjs/core";
import type { NestExpressApplication } from "@nestjs/platform-express";
import { AppModule } from "./app.module";

async function main(): Promise<void> {
  // The two lines that matter: the bytes as they came, and more of them than the usual 100 KiB.
  const app = await NestFactory.create<NestExpressApplication>(AppModule, { rawBody: true });
  app.useBodyParser("json", { limit: "1mb" });

  await app.listen(process.env.PORT ?? 8080, process.env.HOST ?? "127.0.0.1");
  console.log(`listening on ${await app.getUrl()}`);
}

void main();
